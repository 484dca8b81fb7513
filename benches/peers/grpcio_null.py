#!/usr/bin/env python3
"""The peer of `vultus-load --null-model`: the same contract, answered by grpcio's asyncio server.

It answers Verify with NON_MATCH and looks at no face, and checks nothing that Vultus checks: no client, no consent, no
deadline, no room. Prints its port and process as one JSON object, and serves until it is terminated. One process, as
asyncio is; grpcio's own threads and its C core are counted in its time.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients/python"))

from vultus_client import v1

LISTEN = "127.0.0.1:0"


class NullMatchService(v1.MatchServiceServicer):
    async def Verify(self, request: v1.VerifyRequest, context: grpc.aio.ServicerContext) -> v1.VerifyResponse:
        return v1.VerifyResponse(
            decision=v1.DECISION_NON_MATCH,
            reason=v1.DECISION_REASON_SCORE_BELOW_THRESHOLD,
            transaction_id=request.context.transaction_id,
        )


async def main() -> None:
    server = grpc.aio.server()
    v1.add_MatchServiceServicer_to_server(NullMatchService(), server)
    port = server.add_insecure_port(LISTEN)
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(json.dumps({"listening": f"127.0.0.1:{port}", "pid": os.getpid()}), flush=True)
    await stop.wait()
    await server.stop(grace=1)


if __name__ == "__main__":
    asyncio.run(main())
