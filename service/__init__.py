"""The Forebay service: front end, batch former, pipeline, models, results and observation.

Reading order, along the way of one frame:

1. `request` and `errors`: the values that travel, and the ways in which they end. `lane`: the interface of a
   former and a lane. `clock`, `channel`, `worker_pool`: the tools of every thread.
2. `frontend.server` listens; `frontend.frames.servicer` reads and writes one stream; `frontend.frames.codec`,
   `.opening` and `.session` parse, check and keep order; `frontend.frames.decode` makes rows of pictures. The other
   protocol has the same parts in `frontend.open_inference`.
3. `frontend.admission` checks feasibility and takes a permit and a buffer, for both protocols: `pipeline.permits`,
   `pipeline.shares`, `pipeline.arena`.
4. `batching.pending`, `batching.policy`, `batching.selection`, `batching.cost_model`: the decisions, all pure;
   `batching.core` applies them, `batching.former` is their thread.
5. `pipeline.slots`, `pipeline.stage`, `pipeline.h2d`, `pipeline.execute`, `pipeline.d2h`, `pipeline.pipeline`: one
   lane.
6. `pipeline.delivery`, `results`, `frontend.loop_sink`: outputs become a result and go back to the event loop.
7. `models.opening`, `models.version`, `models.registry`, `models.lifecycle`: the parts of a model version, and its
   life.
8. `journal` and `observe`: records of the data path, and their readers. `server` builds all parts; `cli` starts it.
"""
