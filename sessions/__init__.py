"""One module per nox session; see ARCHITECTURE.md."""
