"""Language models behind the small `ChatClient` protocol; import each from its module."""
