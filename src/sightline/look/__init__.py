"""Pictures of what attention looked at: in the terminal, as PNG, and as one HTML page.

`picture.py` is the data between computing and drawing; every drawing takes pictures and knows nothing else.
"""
