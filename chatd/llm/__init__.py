"""Model providers: the request, the stream, the errors."""
