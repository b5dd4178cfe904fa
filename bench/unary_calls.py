"""Single requests of tritonclient for `bench.scaling`: calls until a line comes on standard input, then counts.

Run with the interpreter of an environment that has tritonclient: `python bench/unary_calls.py ADDRESS MODEL`.
"""

import argparse
import json
import select
import sys

INTERVAL_S = 0.05


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    given = parser.parse_args()
    import numpy as np
    from tritonclient.grpc import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException

    tensor = InferInput("input", [1, 1024], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 1024), np.uint8))
    calls = errors = 0
    first_error = ""
    with InferenceServerClient(given.address) as client:
        while not select.select([sys.stdin], [], [], INTERVAL_S)[0]:
            calls += 1
            try:
                client.infer(given.model, [tensor])
            except InferenceServerException as error:
                errors += 1
                first_error = first_error or str(error)
    print(json.dumps({"unary_calls": calls, "unary_errors": errors, "unary_first_error": first_error}))


if __name__ == "__main__":
    main()
