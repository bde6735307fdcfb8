"""The network: backbone, FPN, FCOS head, controller, mask branch, dynamic mask head."""
