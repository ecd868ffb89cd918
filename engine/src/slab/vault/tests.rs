use super::*;

fn vault_of(root_key: [u8; KEY_BYTES], store_id: [u8; 16]) -> Vault {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.key");
    let mut key = KeyFile::create(&path, store_id).unwrap();
    key.root_key.copy_from_slice(&root_key);
    Vault::new(&key)
}

fn golden() -> Vault {
    vault_of(
        std::array::from_fn(|i| 0x40 + i as u8),
        std::array::from_fn(|i| 0x10 + i as u8),
    )
}

/// Both values by `golden/make.py`.
#[test]
fn derivation_and_fingerprints_are_those_of_the_page() {
    let vault = golden();
    assert_eq!(
        u128::from_be_bytes(vault.check()),
        0xf6d7470a7bd217648d6482c9d7235da5
    );
    let expect = "Fingerprint(5c74035f407fecc12c09d5e1c51977a3)";
    assert_eq!(
        format!("{:?}", vault.fingerprint(7, b"ABCD-EFGH-1234")),
        expect
    );
}

#[test]
fn a_fingerprint_depends_on_key_sku_and_secret() {
    let vault = golden();
    let other_store = vault_of([1; KEY_BYTES], [2; 16]);
    let prints = [
        vault.fingerprint(1, b"secret"),
        vault.fingerprint(2, b"secret"),
        vault.fingerprint(1, b"Secret"),
        vault.fingerprint(1, b""),
        other_store.fingerprint(1, b"secret"),
    ];
    let distinct: std::collections::BTreeSet<_> = prints.into_iter().collect();
    assert_eq!(distinct.len(), prints.len());
    let fingerprinter = vault.fingerprinter(1);
    assert_eq!(fingerprinter.of(b"secret"), prints[0]);
    assert_eq!(
        fingerprinter.of(b"secret"),
        prints[0],
        "it can be used again"
    );
}

#[test]
fn a_wrapped_key_unwraps_only_where_it_belongs() {
    let vault = golden();
    let key = SlabKey::generate().unwrap();
    let bound = [7; BOUND_BYTES];
    let wrapped = vault.wrap(&key, &bound).unwrap();
    assert_ne!(wrapped.key, **key.0, "it is not there in the clear");
    assert_eq!(vault.unwrap(&wrapped, &bound).unwrap().0, key.0);
    for bit in 0..BOUND_BYTES * 8 {
        let mut bound = bound;
        bound[bit / 8] ^= 1 << (bit % 8);
        assert!(vault.unwrap(&wrapped, &bound).is_err(), "bound bit {bit}");
    }
    for byte in 0..size_of::<WrappedKey>() {
        let mut bytes: [u8; size_of::<WrappedKey>()] = zerocopy::transmute!(wrapped);
        bytes[byte] ^= 1;
        assert!(
            vault.unwrap(&zerocopy::transmute!(bytes), &bound).is_err(),
            "byte {byte}"
        );
    }
    assert!(
        vault_of([3; KEY_BYTES], vault.store_id())
            .unwrap(&wrapped, &bound)
            .is_err()
    );
}

#[test]
fn keys_and_nonces_are_new_each_time() {
    let vault = golden();
    let key = SlabKey::generate().unwrap();
    let wraps = [(); 2].map(|()| vault.wrap(&key, &[0; BOUND_BYTES]).unwrap());
    assert_ne!(wraps[0].nonce, wraps[1].nonce);
    assert_ne!(key.0, SlabKey::generate().unwrap().0);
    assert_eq!(format!("{key:?}"), "SlabKey(redacted)");
}
