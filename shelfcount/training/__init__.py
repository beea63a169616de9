"""The model family and how it learns. The only package that needs torch, with `deploy.convert`."""
