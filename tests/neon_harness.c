/* Runs one kernel on one recorded call, where the kernel's own processor is emulated.
 *
 * Usage: harness CALL ANSWER. CALL holds int64 sizes {slots, addresses, workspace bytes, image bytes}, the
 * argument block (slots × int64), the numbers of its slots that are addresses, and the memory image; an address
 * in the block counts from the image's start. ANSWER is the image after the kernel has run.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int64_t attend(int64_t *arguments, void *workspace);

static void fail(const char *what) {
    perror(what);
    exit(2);
}

/* `bytes` of memory up to the very end of a page; the page after it cannot be touched. */
static void *fenced(size_t bytes) {
    size_t page = 65536, body = (bytes + page - 1) / page * page;
    char *start = mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + body, page, PROT_NONE)) fail("mmap");
    return start + body - bytes;
}

static void take(void *to, size_t size, size_t count, FILE *from) {
    if (fread(to, size, count, from) != count) fail("the recorded call is too short");
}

int main(int count, char **words) {
    int64_t sizes[4], arguments[256], addresses[256];
    if (count != 3) return 2;
    FILE *call = fopen(words[1], "rb"), *answer = fopen(words[2], "wb");
    if (!call || !answer) fail("open");
    take(sizes, 8, 4, call);
    if (sizes[0] > 256 || sizes[1] > 256) return 2;
    take(arguments, 8, sizes[0], call);
    take(addresses, 8, sizes[1], call);
    char *image = fenced(sizes[3]), *workspace = fenced(sizes[2]);
    take(image, 1, sizes[3], call);
    memset(workspace, 0xFF, sizes[2]); /* NaN: nothing may be read before it is written */
    for (int64_t i = 0; i < sizes[1]; i++) arguments[addresses[i]] += (int64_t)image;
    while (attend(arguments, workspace)) continue;
    if (fwrite(image, 1, sizes[3], answer) != (size_t)sizes[3] || fclose(answer)) fail("write");
    return 0;
}
