"""The test gateway as a process of its own: charges over HTTP, and webhooks that tell of them."""
