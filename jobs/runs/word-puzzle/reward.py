"""Grades the word puzzle: one row of JSON in, one line of JSON out, until stdin ends.

An answer earns its share of letters that stand where they belong, and is right if all of them do.
"""

import json
import sys

for line in sys.stdin:
    row = json.loads(line)
    answer, right = row["completion"].strip(), "".join(sorted(row["row"]["word"]))
    in_place = sum(a == b for a, b in zip(answer, right)) / len(right)
    parts = {"in_place": in_place, "solved": float(answer == right)}
    print(json.dumps({"id": row["id"], "parts": parts, "correct": answer == right}), flush=True)
