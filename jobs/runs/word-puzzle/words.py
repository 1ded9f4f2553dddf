"""Writes the word puzzle's rows: `python3 words.py` makes train.jsonl and test.jsonl anew.

Made-up words: a consonant, a vowel, and so on, eight letters, no word twice. What is asked of them
stands in the run file.
"""

import json
import random

CONSONANTS = "bcdfghklmnprst"
VOWELS = "aeiou"
ROWS = {"train.jsonl": 3000, "test.jsonl": 500}


def word(draw):
    return "".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(4))


def main():
    draw = random.Random(1)
    seen = set()
    for name, rows in ROWS.items():
        with open(name, "w", encoding="utf-8") as file:
            for _ in range(rows):
                while (new := word(draw)) in seen:
                    pass
                seen.add(new)
                print(json.dumps({"word": new}), file=file)


if __name__ == "__main__":
    main()
