# Seals or opens packets with scapy's ESP and AH. The request comes as JSON on
# standard input, the answer goes as JSON to standard output.
import json
import sys
import warnings

warnings.filterwarnings("ignore")

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP, IPSecIntegrityError, SecurityAssociation


def packet(text):
    raw = bytes.fromhex(text)
    return IPv6(raw) if raw[0] >> 4 == 6 else IP(raw)


def association(sa):
    tunnel = None
    if sa.get("tunnel_src"):
        kind = IPv6 if ":" in sa["tunnel_src"] else IP
        tunnel = kind(src=sa["tunnel_src"], dst=sa["tunnel_dst"])
    nat = None
    if sa.get("encap_src_port"):
        nat = UDP(sport=sa["encap_src_port"], dport=sa["encap_dst_port"])
    return SecurityAssociation(
        {"esp": ESP, "ah": AH}[sa["proto"]],
        spi=sa["spi"],
        crypt_algo=sa.get("crypt") or None,
        crypt_key=bytes.fromhex(sa.get("crypt_key", "")) or None,
        crypt_icv_size=sa.get("icv_size") or None,
        auth_algo=sa.get("auth") or None,
        auth_key=bytes.fromhex(sa.get("auth_key", "")) or None,
        tunnel_header=tunnel,
        nat_t_header=nat,
        esn_en=bool(sa.get("esn")),
        esn=sa.get("esn_high", 0),
    )


def seal(sa, item):
    iv = bytes.fromhex(item.get("iv", "")) or None
    sealed = association(sa).encrypt(packet(item["packet"]), seq_num=item["seq"], iv=iv)
    if UDP in sealed and sa.get("encap_src_port"):
        # scapy takes the length before there is anything behind the header
        sealed[UDP].len = len(sealed[UDP])
    return sealed


def open_(sa, item):
    return association(sa).decrypt(packet(item["packet"]))


request = json.load(sys.stdin)
work = {"seal": seal, "open": open_}[request["do"]]
answers = []
for item in request["items"]:
    try:
        answers.append({"packet": bytes(work(request["sa"], item)).hex()})
    except IPSecIntegrityError as error:
        answers.append({"error": str(error) or "wrong ICV", "integrity": True})
    except Exception as error:
        answers.append({"error": "%s: %s" % (type(error).__name__, error)})
json.dump(answers, sys.stdout)
