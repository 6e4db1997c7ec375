"""Kills and breaks everything around the service, and checks that no acknowledged callback is lost.

Run it with `make chaos ARGS="--seed 7 --kills 1000"`. `plan` draws the notices and the faults from a seed. `run` starts
the real processes and an unreliable FaceID (`upstream`), and `scene` plays the plan with them. `reconcile` compares the
acknowledgements with the stored data.
"""
