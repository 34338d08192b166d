import json

from fusion_integrations.embedders import HashEmbedder
from fusion_integrations.protocols import ChatClient, EmbedderIdentity, StreamingChatClient
from fusion_integrations.testing import ScriptedChatClient


def test_identity_as_text_names_what_must_match():
    identity = EmbedderIdentity(name="m", engine="onnx", precision="int8", dimensions=384, max_tokens=256)
    assert str(identity) == "m (onnx, int8, 384 dims)"
    assert EmbedderIdentity(**json.loads(json.dumps(identity.to_json()))) == identity


def test_identities_when_anything_differs_differ():
    assert HashEmbedder(dimensions=8).identity == HashEmbedder(dimensions=8).identity
    assert HashEmbedder(dimensions=8).identity != HashEmbedder(dimensions=9).identity


def test_clients_are_recognised_by_their_shape():
    class OnlyComplete:
        model = "m"

        def complete(self, messages, *, options=None):
            raise NotImplementedError

    client = ScriptedChatClient("m")
    assert isinstance(client, ChatClient)
    assert isinstance(client, StreamingChatClient)
    assert not isinstance(OnlyComplete(), ChatClient)
