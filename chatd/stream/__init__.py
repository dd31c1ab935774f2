"""The chat's event stream: previews and hints in Redis, the wire frames of events."""
