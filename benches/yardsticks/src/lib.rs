//! Yardsticks: the same transactions through other people's encoders.
