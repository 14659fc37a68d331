import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for two_layer_cases, which tests here share
