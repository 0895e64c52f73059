"""The parts of the stages: classification, pseudo masks, evaluation, prediction, pictures."""
