"""Writes slab-0000002a.slab, 2b, which says when its first card expires, and 2c, which grows and has room for two cards more, from
docs/slab-format.md alone, with nothing of Croupier's code.

The tests open its output: version 1 has to stay readable, also when the reader changes.
Needs the package `cryptography`. Run it in this directory.
"""

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

STORE_ID = bytes(range(0x10, 0x20))
ROOT_KEY = bytes(range(0x40, 0x60))
SLAB_KEY = bytes(range(0x80, 0xA0))
WRAP_NONCE = bytes(range(0xF0, 0xFC))
SLAB, SKU, BATCH, POOL = 0x2A, 7, 3, 2
CREATED_UNIX_MS = 1_700_000_000_123
CLASS_BYTES = 32
NONE = -(2**63)
# secret, expires_at_s, premium_e4, cost_e4, label
CARDS = [
    ("ABCD-EFGH-1234".encode(), 0, NONE, NONE, "spring"),
    ("卡密".encode(), 1_900_000_000, 12_500, -1, ""),
    (b"x" * 30, 0, 0, 99_0000, "\u00fcber"),
]


def derived(label):
    return HKDF(algorithm=SHA256(), length=32, salt=STORE_ID, info=label).derive(ROOT_KEY)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def aligned(offset):
    return (offset + 4095) // 4096 * 4096


def write(slab, features):
    labels, slots, sealed, prints = b"", b"", b"", []
    for slot, (secret, expires, premium, cost, label) in enumerate(CARDS):
        label = b"" if features & 2 else label.encode()
        slots += struct.pack("<QqqIHH", expires, premium, cost, len(labels), len(label), 0)
        labels += label
        plaintext = (struct.pack("<H", len(secret)) + secret).ljust(CLASS_BYTES, b"\0")
        bound = STORE_ID + struct.pack("<II", slab, slot)
        sealed += AESGCM(SLAB_KEY).encrypt(bytes(8) + struct.pack("<I", slot), plaintext, bound)
        text = struct.pack("<I", SKU) + secret
        fingerprint = hmac.new(derived(b"croupier fingerprint v1"), text, hashlib.sha256).digest()[:16]
        prints.append((fingerprint, slot))
    prints = prints if features & 2 else sorted(prints)
    prints = b"".join(print_ + struct.pack("<II", slot, 0) for print_, slot in prints)
    crcs = [crc32c(section) for section in [slots, sealed, prints, labels]]
    room = len(CARDS)
    if features & 2:
        print("checksums of what is filled", *(f"{crc:#010x}" for crc in crcs))
        crcs, room = [0] * 4, len(CARDS) + 2
        slots, sealed, prints = (part.ljust(room * len(part) // len(CARDS), b"\0") for part in [slots, sealed, prints])

    claims = bytes(8 * ((room + 63) // 64))
    sections, offsets, end = [claims, slots, sealed, prints, labels], [], 4096
    for section in sections:
        offsets.append(end)
        end = aligned(end + len(section))

    header = b"CRPRSLAB" + struct.pack("<HHI", 1, 0, 4096) + STORE_ID
    header += struct.pack("<IIIHHIIII", slab, SKU, BATCH, POOL, 0, room, CLASS_BYTES, CLASS_BYTES + 16, 0)
    assert len(header) == 64
    wrapped = AESGCM(derived(b"croupier wrap v1")).encrypt(WRAP_NONCE, SLAB_KEY, header)
    header += struct.pack("<QQ", CREATED_UNIX_MS, features)
    header += struct.pack("<QQQQQQQ", *offsets, len(labels), end)
    header += struct.pack("<IIII", *crcs)
    header += WRAP_NONCE + wrapped
    if features & 1:
        header += struct.pack("<Q", min(expires for _, expires, *_ in CARDS if expires))
    header = header.ljust(4092, b"\0")
    header += struct.pack("<I", crc32c(header))

    with open(f"slab-{slab:08x}.slab", "wb") as file:
        for offset, section in zip([0] + offsets, [header] + sections):
            file.write(bytes(offset - file.tell()) + section)
        file.write(bytes(end - file.tell()))

    print("header sha256", hashlib.sha256(header).hexdigest())


write(SLAB, 0)
write(SLAB + 1, 1)
write(SLAB + 2, 2)
print("key check", derived(b"croupier check v1")[:16].hex())
key_file = b"CRPRKEY1" + STORE_ID + ROOT_KEY + bytes(4)
print("store.key", (key_file + struct.pack("<I", crc32c(key_file))).hex())
store = b"CRPRSTOR" + struct.pack("<H", 1) + bytes(6) + STORE_ID + struct.pack("<Q", CREATED_UNIX_MS)
store += derived(b"croupier check v1")[:16] + bytes(4)
print("store", (store + struct.pack("<I", crc32c(store))).hex())
