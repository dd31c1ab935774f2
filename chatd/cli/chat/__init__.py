"""`chatd chat`: a conversation in the terminal."""

from chatd.cli.chat.command import chat

__all__ = ["chat"]
