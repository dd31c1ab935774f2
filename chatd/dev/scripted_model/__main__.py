"""`python -m chatd.dev.scripted_model --port N`: serve the scripted model on loopback."""

import argparse

from chatd.dev.scripted_model.app import ScriptedModel
from chatd.dev.serving import serve


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chatd.dev.scripted_model",
        description="A model that does what the last user message says, for demos and tests.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--api-key", help="answer 401 to any other")
    arguments = parser.parse_args()
    # Connections are closed on purpose here, which uvicorn takes for an error of ours.
    serve(
        ScriptedModel(arguments.api_key),
        port=arguments.port,
        path="/v1",
        log_level="critical",
        lifespan="off",
    )


if __name__ == "__main__":
    main()
