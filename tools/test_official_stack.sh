#!/usr/bin/env bash
# Runs the test suite with the official OpenMMLab packages, which get an
# environment of their own: .venv-official. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
"$PYTHON" tools/setup_env.py --stack official
exec "$("$PYTHON" tools/setup_env.py --stack official --print-python)" \
    -m pytest "$@"
