"""A character model: reads text and gives, at each place, scores for the next character."""

from torch import Tensor, nn


class CharLSTM(nn.Module):
    def __init__(
        self, vocab_size: int = 64, embedding: int = 32, hidden: int = 128, layers: int = 1
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, vocab_size)

    def forward(self, characters: Tensor) -> Tensor:
        states, _ = self.lstm(self.embed(characters))
        return self.head(states)
