"""The union of all heads."""

from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead

Head = BoxesScoresHead
