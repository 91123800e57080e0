use std::path::Path;

use clap::{CommandFactory, Parser};
use jetway_config::Secret;

use super::args::{Arguments, ClientConfigArguments, Command};
use super::{client_config, keys};
use crate::test_config;

const SERVER_KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const SERVER_PUBLIC_KEY: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
const CLIENT_KEY: &str = "gI6EdUSYvn8ugXOt8QQD6Yc+JyiZxIhp3GInSWRfWGE=";

fn public_key_of(private: &str) -> String {
    keys::public_key(&key(private)).to_string()
}

fn key(text: &str) -> Secret {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    keys::read_key(Some(file.path())).unwrap()
}

fn arguments(text: &str) -> ClientConfigArguments {
    let words = ["jetway", "client-config"].into_iter().chain(text.split_whitespace());
    match Arguments::try_parse_from(words).unwrap().command {
        Command::ClientConfig(arguments) => arguments,
        other => panic!("{other:?}"),
    }
}

fn config(folder: &Path) -> jetway_config::Config {
    use std::os::unix::fs::PermissionsExt;
    let psk = folder.join("alice.psk");
    std::fs::write(&psk, SERVER_KEY).unwrap();
    std::fs::set_permissions(&psk, std::fs::Permissions::from_mode(0o600)).unwrap();
    let alice = public_key_of(CLIENT_KEY);
    let text = format!(
        "[[tunnel]]\nname = \"jw0\"\nlisten_port = 51820\nprivate_key_file = \"server.key\"\n\
         addresses = [\"10.8.0.1/16\", \"fd00:8::1/64\"]\nmtu = 1380\n\
         [[tunnel.peer]]\nname = \"alice\"\npublic_key = \"{alice}\"\npreshared_key_file = \"alice.psk\"\n\
         allowed_ips = [\"10.8.0.2/32\", \"fd00:8::2/128\", \"172.16.0.0/24\"]\n\
         [[tunnel]]\nname = \"jw1\"\nlisten_port = 51821\nprivate_key_file = \"server.key\"\n\
         addresses = [\"10.9.0.1/16\"]\n\
         [[tunnel.peer]]\nname = \"bob\"\npublic_key = \"{alice}\"\nallowed_ips = [\"10.9.0.2/32\"]\n"
    );
    test_config::load(folder, &text, SERVER_KEY)
}

#[test]
fn the_arguments_are_consistent_and_every_command_explains_itself() {
    let mut command = Arguments::command();
    command.clone().debug_assert();
    for sub in command.get_subcommands_mut() {
        assert!(sub.get_about().is_some(), "{} has no explanation", sub.get_name());
    }
}

#[test]
fn a_clients_configuration_has_everything_that_wg_quick_needs() {
    let folder = tempfile::tempdir().unwrap();
    let text = client_config::make(&config(folder.path()), &arguments("alice"), Some(&key(CLIENT_KEY))).unwrap();
    let expected = format!(
        "[Interface]\nPrivateKey = {CLIENT_KEY}\nAddress = 10.8.0.2/32, fd00:8::2/128\nMTU = 1380\n\n\
         [Peer]\nPublicKey = {SERVER_PUBLIC_KEY}\nPresharedKey = {SERVER_KEY}\nEndpoint = 198.51.100.1:51820\n\
         AllowedIPs = 10.8.0.0/16, fd00:8::/64\n"
    );
    assert_eq!(*text, expected);
}

#[test]
fn without_the_clients_key_there_is_a_placeholder() {
    let folder = tempfile::tempdir().unwrap();
    let text = client_config::make(&config(folder.path()), &arguments("bob"), None).unwrap();
    assert!(text.contains(&format!("# Put here the private key whose public key is {}", public_key_of(CLIENT_KEY))));
    assert!(text.contains("PrivateKey = PASTE_THE_PRIVATE_KEY_HERE\n"));
}

#[test]
fn the_endpoint_and_the_networks_can_be_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    for (given, endpoint) in [
        ("vpn.example.org", "vpn.example.org:51820"),
        ("vpn.example.org:443", "vpn.example.org:443"),
        ("2001:db8::1", "[2001:db8::1]:51820"),
        ("[2001:db8::1]", "[2001:db8::1]:51820"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("192.0.2.1", "192.0.2.1:51820"),
    ] {
        let arguments =
            arguments(&format!("alice --endpoint {given} --allowed-ips 0.0.0.0/0,::/0 --persistent-keepalive 25"));
        let text = client_config::make(&config, &arguments, None).unwrap();
        assert!(text.contains(&format!("Endpoint = {endpoint}\n")), "{given}: {}", *text);
        assert!(text.contains("AllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 25\n"), "{}", *text);
    }
    for given in ["", "a b", "vpn.example.org:0", "vpn.example.org:x", "http://x"] {
        let mut arguments = arguments("alice");
        arguments.endpoint = Some(given.to_owned());
        assert!(client_config::make(&config, &arguments, None).is_err(), "{given:?}");
    }
}

#[test]
fn a_wrong_peer_and_a_wrong_key_are_refused_with_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let error = client_config::make(&config, &arguments("carol"), None).unwrap_err().to_string();
    assert!(error.contains("carol") && error.contains("alice, bob"), "{error}");
    let error = client_config::make(&config, &arguments("alice"), Some(&key(SERVER_KEY))).unwrap_err().to_string();
    assert!(error.contains(SERVER_PUBLIC_KEY) && error.contains(&public_key_of(CLIENT_KEY)), "{error}");
}
