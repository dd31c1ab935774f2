"""The OAuth protocol: no database, no settings; every request goes through a guarded client."""
