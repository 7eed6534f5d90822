"""Who holds an IMSI: the operator's directory of subscribers, never on the answer path."""
