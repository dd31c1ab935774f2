"""A model that does what the last user message says, behind OpenAI's chat completions API.

Lines of that message that begin with `/` are its script; the k-th model call of the turn plays the
k-th answer, and `done` when there is none left:

    /say TEXT                          the text, streamed word by word
    /long N GAP_MS                     N tokens, GAP_MS apart
    /call NAME {json} & NAME {json}    calls offered tools, in parallel
    /tools, /tool NAME                 the offered tools' names, the definition of one
    /messages, /echo                   the messages it was sent, the last tool result

What goes wrong is written above the answer it delays, and takes no number of its own:

    /fail STATUS [TIMES] [RETRY_AFTER] an HTTP error, the first TIMES calls; without TIMES once if
                                       clients repeat the status (408, 409, 425, 429, 5xx), else
                                       always
    /drop N                            closes the connection after N tokens, once
    /hang SECONDS                      sends nothing for so long

Without a script it answers in one sentence, after a call of the demo tool the message names.
"""
