"""A receiver in a process of its own, which a test may kill. It stores each verified event before it answers.

python -m tests.support.webhook_process PORT SECRET FILE
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from standardwebhooks import Webhook

from tests.support.receiver import NO_CONTENT, Message, Receiver, answer


async def main(port: int, secret: str, path: Path) -> None:
    """Serves until the process ends."""
    verifier = Webhook(secret)

    def store(message: Message) -> bytes:
        event = verifier.verify(message.body, dict(message.headers))
        line = {"id": message.headers["webhook-id"], **event["data"]}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return NO_CONTENT

    def respond(message: Message) -> bytes:
        try:
            return store(message)
        except ValueError:
            return answer(401)

    receiver = Receiver(port, respond)
    async with await asyncio.start_server(receiver.serve, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
