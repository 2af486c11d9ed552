"""The sessions ``release``, ``publish`` and ``index``, and the documents of a release."""
