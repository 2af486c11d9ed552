"""Used by three phases or more; knows none of them."""
