"""Reads a strip of signs after Shi, Bai and Yao (2015): convolutions, an LSTM both ways, CTC."""

from torch import Tensor, nn


class CRNN(nn.Module):
    def __init__(
        self, in_channels: int = 1, image_size: int = 8, hidden: int = 64, num_classes: int = 11
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d((2, 1))
        self.lstm = nn.LSTM(32 * (image_size // 4), hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, num_classes)
        self.log_softmax = nn.LogSoftmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities [n, width // 2, classes] of strips [n, channels, height, width]."""
        x = self.pool1(self.relu1(self.norm1(self.conv1(x))))
        x = self.pool2(self.relu2(self.norm2(self.conv2(x))))
        columns, _ = self.lstm(x.flatten(1, 2).mT)
        return self.log_softmax(self.head(columns))
