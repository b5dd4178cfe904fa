"""Gives the objects of one stream ids that stay the same from frame to frame. Import from `service.tracks.tracker`.

`tracker` has the steps of an update, and each step a module: `detections` checks and orders the input, `elapsed` reads
the capture times, `motion` predicts and corrects, `overlap` compares boxes, `assignment` chooses pairs, `table` holds
the tracks, `state` writes and reads them as bytes. All are pure functions of arrays, except the tracker, which owns its
table. Time is in seconds between captures, never in frames: ADR 0200 has the reasons.
"""
