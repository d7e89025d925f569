"""What tests share: real servers, real receivers, the real platform, and a small client."""
