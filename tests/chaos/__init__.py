"""What becomes of acknowledged callbacks while everything around them dies: `make chaos ARGS="--seed 7 --kills 1000"`.

`plan` draws what is told and what breaks from a seed, `run` lets it happen to real processes (`processes`, `postgres`)
and to the FaceID that they ask (`upstream`), `reconcile` compares what was acknowledged with what is stored.
"""
