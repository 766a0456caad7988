"""What every member of a process group needs, imported where they are forked from."""

import os

os.environ.update({"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"})

from hfray.models.quantization import import_bitsandbytes

import_bitsandbytes()
import deepspeed  # noqa: E402, F401
import peft  # noqa: E402, F401
import torch  # noqa: E402, F401
from transformers import BertForSequenceClassification, LlamaForCausalLM  # noqa: E402, F401
