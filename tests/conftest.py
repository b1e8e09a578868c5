"""What every test stands on: no network, no user's files, quiet libraries."""

import os
import tempfile

from explorer import packaged

# Before anything imports torch, transformers or the app. Each test process has a home of its own, and the fetched model
# (looked up where the user's is) is shared.
os.environ.setdefault(packaged.MODELS_VARIABLE, str(packaged.models_folder()))
os.environ[packaged.HOME_VARIABLE] = tempfile.mkdtemp(prefix="persona-explorer-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"
