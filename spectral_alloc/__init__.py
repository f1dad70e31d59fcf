"""A dict that outgrows RAM and stays a dict."""
