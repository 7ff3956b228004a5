"""The queue before one instance.

`instance_queue` is what callers use: it admits a request, and starts batches while the instance has
a free slot. It does so with these pieces:

- `admission`: which requests may enter;
- `requests`: the values: a request as it is ordered, with its caller's future, its answer;
- `backlog`: the requests that are admitted and not settled, and the one place that settles them;
- `fair_queue`: the order in which waiting requests are served;
- `next_batch`: the decision which of them run next (`batch_formation`), or to wait for more;
- `batch_runner`: the slots of the instance, and a batch from its start to its last answer;
- `instance_profile`: what is learned about the instance from the batches that ran;
- `knobs`: what is configured, which may change while the queue runs.

Ownership: a request belongs to the backlog while it waits and to its batch while it runs; whoever
owns it settles its future, exactly once. A caller that leaves is forgotten while its request waits,
and its result is ignored while it runs, so that it never spoils the others' answers. A stream is a
batch of one: its slot belongs to its caller until the caller leaves.
"""
