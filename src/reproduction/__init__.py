"""The paper's tables and figures, and ours beyond it, from the runs of experiment sets."""
