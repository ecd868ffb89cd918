use std::fs;

use tempfile::TempDir;

use super::*;

const STORE_ID: [u8; 16] = *b"store of a test!";
/// Both by `golden/make.py`.
const GOLDEN_KEY: &str = "435250524b455931101112131415161718191a1b1c1d1e1f\
    404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f00000000e14c5e29";
const GOLDEN_STORE: &str = "4352505253544f520100000000000000101112131415161718191a1b1c1d1e1f\
    7b68e5cf8b010000f6d7470a7bd217648d6482c9d7235da500000000329364ca";

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn dir() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (key, store) = (dir.path().join("store.key"), dir.path().join("store"));
    (dir, key, store)
}

fn write_key(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    write_new(path, bytes, 0o600).unwrap();
}

#[test]
fn golden_files_of_version_1_are_read() {
    let (_dir, key_path, store_path) = dir();
    write_key(&key_path, &unhex(GOLDEN_KEY));
    fs::write(&store_path, unhex(GOLDEN_STORE)).unwrap();
    let key = KeyFile::load(&key_path).unwrap();
    assert_eq!(
        key.root_key[..],
        *unhex(GOLDEN_KEY)[24..56].as_array::<32>().unwrap()
    );
    let store = StoreFile::load(&store_path).unwrap();
    assert_eq!(store.created_unix_ms, 1_700_000_000_123);
    assert_eq!(store.store_id, key.store_id());
    store.check(&Vault::new(&key)).unwrap();
}

#[test]
fn what_is_created_can_be_loaded_and_is_not_created_twice() {
    let (_dir, key_path, store_path) = dir();
    let key = KeyFile::create(&key_path, STORE_ID).unwrap();
    let vault = Vault::new(&key);
    let store = StoreFile::create(&store_path, &vault, 42).unwrap();
    let loaded = KeyFile::load(&key_path).unwrap();
    assert_eq!(
        (loaded.store_id(), &loaded.root_key),
        (STORE_ID, &key.root_key)
    );
    assert_eq!(StoreFile::load(&store_path).unwrap(), store);
    let faults = [
        KeyFile::create(&key_path, STORE_ID).unwrap_err(),
        StoreFile::create(&store_path, &vault, 43).unwrap_err(),
    ];
    for fault in faults {
        assert!(matches!(fault, VaultError::Exists { .. }), "{fault}");
    }
    assert_eq!(KeyFile::load(&key_path).unwrap().root_key, key.root_key);
}

#[test]
fn two_stores_have_two_keys() {
    let (_dir, one, two) = dir();
    let keys = [
        KeyFile::create(&one, STORE_ID),
        KeyFile::create(&two, STORE_ID),
    ]
    .map(Result::unwrap);
    assert_ne!(keys[0].root_key, keys[1].root_key);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let (_dir, path, _) = dir();
    KeyFile::create(&path, STORE_ID).unwrap();
    for mode in [0o400, 0o600, 0o700, 0o640, 0o604, 0o620, 0o666, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match KeyFile::load(&path) {
            Ok(_) => assert_eq!(mode & 0o077, 0),
            Err(VaultError::BadMode { mode: told, .. }) => {
                assert!(told == mode && mode & 0o077 != 0)
            }
            Err(other) => panic!("{mode:o}: {other}"),
        }
    }
}

#[test]
fn every_flipped_bit_and_every_other_length_is_refused() {
    let (_dir, key_path, store_path) = dir();
    let (key, store) = (unhex(GOLDEN_KEY), unhex(GOLDEN_STORE));
    write_key(&key_path, &key);
    for bit in 0..FILE_BYTES * 8 {
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        // In place, so that the mode stays.
        fs::write(&key_path, flipped(&key)).unwrap();
        fs::write(&store_path, flipped(&store)).unwrap();
        assert!(
            matches!(KeyFile::load(&key_path), Err(VaultError::Damaged { .. })),
            "bit {bit}"
        );
        assert!(StoreFile::load(&store_path).is_err(), "bit {bit}");
    }
    for length in (0..200).filter(|&length| length != FILE_BYTES) {
        let resized = |bytes: &[u8]| {
            bytes
                .iter()
                .copied()
                .cycle()
                .take(length)
                .collect::<Vec<_>>()
        };
        fs::write(&key_path, resized(&key)).unwrap();
        fs::write(&store_path, resized(&store)).unwrap();
        assert!(
            matches!(KeyFile::load(&key_path), Err(VaultError::Damaged { .. })),
            "{length}"
        );
        assert!(matches!(
            StoreFile::load(&store_path),
            Err(VaultError::Damaged { .. })
        ));
    }
}

#[test]
fn faults_say_which_file_and_what_to_do() {
    let (_dir, key_path, store_path) = dir();
    let missing = KeyFile::load(&key_path).unwrap_err();
    assert!(missing.to_string().starts_with("key file "), "{missing}");
    assert!(
        missing
            .to_string()
            .ends_with("is missing: give its place, or make a store with `croupier init`")
    );
    let mut newer = unhex(GOLDEN_STORE);
    newer[8] = 2;
    fs::write(&store_path, newer).unwrap();
    let fault = StoreFile::load(&store_path).unwrap_err();
    assert!(
        matches!(fault, VaultError::UnsupportedVersion { found: 2, .. }),
        "{fault}"
    );
}

#[test]
fn a_wrong_key_file_is_told_before_anything_is_opened() {
    let (_dir, key_path, store_path) = dir();
    let vault = Vault::new(&KeyFile::create(&key_path, STORE_ID).unwrap());
    let store = StoreFile::create(&store_path, &vault, 1).unwrap();
    let of = |name: &str, store_id| {
        Vault::new(&KeyFile::create(&key_path.with_file_name(name), store_id).unwrap())
    };
    store.check(&vault).unwrap();
    let other_key = store.check(&of("a.key", STORE_ID)).unwrap_err();
    assert!(
        matches!(other_key, VaultError::WrongKey { .. }),
        "{other_key}"
    );
    let other_store = store.check(&of("b.key", [1; 16])).unwrap_err();
    assert!(
        matches!(other_store, VaultError::OtherStore { .. }),
        "{other_store}"
    );
}

#[test]
fn no_key_is_shown() {
    let (_dir, path, _) = dir();
    write_key(&path, &unhex(GOLDEN_KEY));
    let key = KeyFile::load(&path).unwrap();
    let text = "(10111213-1415-1617-1819-1a1b1c1d1e1f, redacted)";
    assert_eq!(format!("{key:?}"), format!("KeyFile{text}"));
    assert_eq!(format!("{:?}", Vault::new(&key)), format!("Vault{text}"));
}
