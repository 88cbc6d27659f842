#!/usr/bin/env bash
# Serve the local store of an output folder on this machine: mlflow/serve.sh [OUTPUT] [PORT]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
output=${1:-$root/runs}
port=${2:-5000}

python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
mkdir -p "$output"
output=$(cd "$output" && pwd)

echo "MLflow on http://127.0.0.1:$port, store $output/mlflow.db"
# Tracking needs none of the job runners that a server starts beside itself.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec "$python" -m mlflow server --host 127.0.0.1 --port "$port" --workers 1 \
  --backend-store-uri "sqlite:///$output/mlflow.db" \
  --artifacts-destination "$output/mlflow_artifacts"
