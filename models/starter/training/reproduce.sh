#!/bin/sh
# Trains, exports and judges the starter model. Run it again after an interruption: finished steps are kept.
#
# Needs: the packages of requirements.txt, WordNet 3.0's index.noun (Debian: wordnet-base), and the data sets beside the
# checkout (../shared/data). PYTHON, CACHE and MINUTES (training time of the image tower) may be set.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
cache=${CACHE:-$HOME/.cache/imgvec-starter}
minutes=${MINUTES:-61}

"$python" teach.py --cache "$cache"
[ -e "$cache/text.npz" ] || "$python" text.py --cache "$cache" --fast --epochs 20
"$python" train.py --cache "$cache" --minutes "$minutes"
"$python" export.py --cache "$cache"
"$python" evaluate.py --cache "$cache"
