"""faceid-results: retrieves, keeps and serves the results of Tencent Cloud FaceID verifications.

The story of one verification, step by step, and the room where each step lives:

1. callback  a back end or a browser says that a person is done      `routers.callbacks` -> `services.receive`
2. claim     a worker takes the row that is due, within the quota      `services.claim` -> `storage.queue`
3. fetch     GetDetectInfo, signed, streamed, media lifted on the way   `faceid.client`, `faceid.lifter`
4. decode    Tencent's document becomes our `Detection`                `faceid.decode` -> `domain.detection`
5. decide    store, look again, retry, pause or give up                `domain.decision` -> `domain.lifecycle`
   put       bytes first, sealed, under fresh keys                     `services.retrieve` -> `sealing`, `storage.media`
6. record    then the rows that name them, many at once                `services.record` -> `services.vault`
7. query     a business system waits, reads, lists, downloads           `routers.verifications` -> `services.query`

Beside it, `services.reconcile` finds what nobody reported, `services.health` tells what an operator should know, and
`services.sweep` removes what no row names, `services.erase` what was kept long enough, `services.audit` records who saw
what, and `services.rotate` renews the keys. `services.together` lets what comes at the same time share a transaction.

`factory` builds the services from `config`; `main` serves them over HTTP, `worker` runs the loops, `cli` is the command
line. Its `demo` runs all of this against the `simulator`, a package of its own that shares no code with this one.
"""
