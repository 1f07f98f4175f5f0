#!/bin/sh
# Trains, exports and judges the starter model. Run it again after an interruption: finished steps are kept, and training
# goes on from its checkpoint.
#
# Needs: the packages of requirements.txt, WordNet 3.0 (Debian: wordnet-base), and the data sets beside the
# checkout (../shared/data). Uses a GPU when torch finds one. These may be set:
#   PYTHON    interpreter with the packages
#   CACHE     directory for pictures, teachers, checkpoints and logs; about 3 GB
#   MINUTES   training time of the meaning network; the other steps take about an hour of one core
#   START     (absolute) a model package of the same architecture to begin with instead of chance
#   PACKAGE   (absolute) directory to write the package to instead of models/starter
#   WORKERS   processes that train together, each on one core
#   LIMIT     use only so many pictures of each split, to try the whole out: LIMIT=1500 MINUTES=1 takes a few minutes
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
package=${PACKAGE:-..}
set -- --cache "${CACHE:-$HOME/.cache/imgvec-starter}" --limit "${LIMIT:-0}"

"$python" teach.py "$@"
[ -e "$2/text.npz" ] || "$python" text.py "$@" --fast --epochs 20
[ -e "$2/head.done" ] || { "$python" head.py "$@"; touch "$2/head.done"; }
"$python" appearance.py "$@"
"$python" train.py "$@" --minutes "${MINUTES:-90}" --workers "${WORKERS:-1}" ${START:+--start-from "$START"}
"$python" colors.py "$@"
"$python" refit.py "$@"
"$python" words.py "$@"
"$python" export.py "$@" --package "$package"
"$python" evaluate.py "$@" --package "$package" --json "$2/scores.json" --set-temperature
"$python" plot.py "$@" --output "$package/training/progress.png"
