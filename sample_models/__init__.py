"""Small models as a lecturer would show them, one per file, in plain PyTorch.

Each file holds one model whose constructor arguments all have defaults. Sizes that the data
determines are filled in by name, so a model of one's own needs nothing but these names:

    in_features      numbers per sample (per time step, if the samples are sequences)
    in_channels      channels of an image
    image_size       height and width of an image
    sequence_length  time steps of a sequence
    vocab_size       characters that a text is made of
    out_features     numbers to predict; ``num_classes`` means the same
"""
