"""Seals and opens whole IP packets with scapy, as a second opinion.

Reads a JSON list from standard input and writes one to standard output, item for
item: {"packet": hex} or {"error": text}. Octets are in hexadecimal.
"""
import json
import sys

try:
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import AH, ESP, SecurityAssociation
    import cryptography  # scapy has no ciphers without it
except ImportError as missing:
    print(missing, file=sys.stderr)
    sys.exit(3)


def run(case):
    sa = SecurityAssociation(
        ESP if case["protocol"] == 50 else AH,
        spi=case["spi"],
        crypt_algo=case.get("crypt") or None,
        crypt_key=bytes.fromhex(case.get("crypt_key", "")) or None,
        crypt_icv_size=case.get("crypt_icv") or None,
        auth_algo=case.get("auth") or None,
        auth_key=bytes.fromhex(case.get("auth_key", "")) or None,
        esn_en=case["esn"],
        esn=case["number"] >> 32,
    )
    packet = bytes.fromhex(case["packet"])
    packet = (IPv6 if packet[0] >> 4 == 6 else IP)(packet)
    if case["seal"]:
        iv = bytes.fromhex(case.get("iv", "")) or None
        result = sa.encrypt(packet, seq_num=case["number"] & 0xFFFFFFFF, iv=iv)
    else:
        result = sa.decrypt(packet)
    return {"packet": bytes(result).hex()}


def attempt(case):
    try:
        return run(case)
    except Exception as error:  # any refusal is an answer
        return {"error": "%s: %s" % (type(error).__name__, error)}


json.dump([attempt(case) for case in json.load(sys.stdin)], sys.stdout)
