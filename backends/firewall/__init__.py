"""Packet filtering for instances: security groups and anti-spoofing, by nft's bridge family.

book       what the host was told, kept in files
ports      the rules of the host, made of that      (groups, spoofing, flows)
ruleset    one set of rules made of another         (expressions)
filters    where they are in force                  (nft)
firewall   all of it together, and what is held back
verbs      the RPCs
"""
