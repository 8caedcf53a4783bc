#!/usr/bin/env python3
"""Calls Upbridge with nothing but its address: no .proto file, no generated code.

    python3 -m venv venv && venv/bin/pip install grpcio grpcio-reflection
    venv/bin/python docs/examples/reflection_client.py [host:port]

Everything is learnt from the server's reflection: the services, the methods, the messages. The program lists them
and then does the hub's main job as CreatorUp would: register, log in, choose a plan, verify the token, ask whether
rendering is allowed, report a batch twice, stream three more, and read the month back. Each run makes a new user.
"""

import sys
import uuid

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2 as reflection

# The messages of v1 and v1alpha are the same on the wire; the hub answers to the name of v1.
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


class Hub:
    """A connection, and the messages and methods that reflection told about."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.pool = descriptor_pool.DescriptorPool()
        self.known = set()
        self.token = None

    def reflect(self, **question):
        ask = self.channel.stream_stream(
            REFLECTION,
            request_serializer=reflection.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection.ServerReflectionResponse.FromString,
        )
        answer = next(ask(iter([reflection.ServerReflectionRequest(**question)])))
        if answer.HasField("error_response"):
            raise RuntimeError(answer.error_response.error_message)
        return answer

    def services(self):
        answer = self.reflect(list_services="")
        return [service.name for service in answer.list_services_response.service]

    def learn(self, **question):
        """Adds the files of an answer to the pool, each after the files it imports."""
        for encoded in self.reflect(**question).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(encoded)
            if file.name in self.known:
                continue
            self.known.add(file.name)
            for imported in file.dependency:
                if imported not in self.known:
                    self.learn(file_by_filename=imported)
            self.pool.Add(file)

    def describe(self, service):
        self.learn(file_containing_symbol=service)
        return self.pool.FindServiceByName(service)

    def call(self, method, request=None):
        """Calls `package.Service/Method` with a dict, or with a list of dicts when the method takes a stream."""
        service, name = method.split("/")
        found = self.describe(service).methods_by_name[name]
        takes = message_factory.GetMessageClass(found.input_type)
        gives = message_factory.GetMessageClass(found.output_type)
        streams = found.client_streaming
        make = self.channel.stream_unary if streams else self.channel.unary_unary
        stub = make(f"/{method}", request_serializer=takes.SerializeToString, response_deserializer=gives.FromString)
        read = lambda body: json_format.ParseDict(body, takes(), descriptor_pool=self.pool)
        sent = iter([read(body) for body in request]) if streams else read(request or {})
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
        answer = stub(sent, metadata=metadata, timeout=10)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True, descriptor_pool=self.pool)


def list_everything(hub):
    for name in hub.services():
        print(name)
        for method in hub.describe(name).methods:
            stream = "stream " if method.client_streaming else ""
            gives = "stream " if method.server_streaming else ""
            print(f"  {method.name}({stream}{method.input_type.name}) -> {gives}{method.output_type.name}")


def do_the_main_job(hub):
    email = f"ana-{uuid.uuid4().hex}@digiup.example"
    password = "correct horse battery staple"
    hub.call("upbridge.v1.AuthService/Register", {"email": email, "password": password, "name": "Ana"})
    session = hub.call("upbridge.v1.AuthService/Login", {"email": email, "password": password})
    hub.token = session["token"]
    print(f"Registered and logged in as {email}.")

    plans = hub.call("upbridge.v1.MembershipService/ListPlans")["plans"]
    print("Plans:", ", ".join(f"{plan['id']} {plan['name']} at {plan['price']} {plan['currency']}" for plan in plans))
    pro = next(plan for plan in plans if plan["name"] == "Pro")
    held = hub.call("upbridge.v1.MembershipService/Subscribe", {"plan_id": pro["id"]})
    print("Subscribed to", held["subscription"]["plan"], "until", held["subscription"]["end_date"] + ".")

    verified = hub.call("upbridge.v1.UserSyncService/VerifyToken")
    assert verified["valid"] and verified["has_access"], verified
    feature = {"feature": "local_rendering"}
    access = hub.call("upbridge.v1.MembershipService/CheckFeatureAccess", feature)
    assert access["has_access"], access
    print("The token is good, and local_rendering is", access["reason"] + ".")

    batch = {"batch_name": "wedding", "batch_type": "video", "usage_type": "local_rendering"}
    first = hub.call("upbridge.v1.UsageService/RecordUsage", {"usage_data": batch})
    again = hub.call("upbridge.v1.UsageService/RecordUsage", {"usage_data": batch})
    assert again["duplicate"] and first["usage_id"] == again["usage_id"], again
    print(f"Recorded {first['usage_id']}; sent again it is {again['outcome']}.")

    reports = [{"usage_data": {**batch, "batch_name": f"clip {number}"}} for number in range(3)]
    streamed = hub.call("upbridge.v1.UsageService/RecordUsageStream", [{"reports": reports[:2]}, {"reports": reports[2:]}])
    assert streamed["created"] == 3, streamed
    month = hub.call("upbridge.v1.UsageService/GetMonthlyUsage")
    assert int(month["total"]) == 4, month
    print(f"Streamed 3 more; {month['month_year']} has {month['total']} units in {month['batches']} batches.")

    try:
        hub.call("upbridge.v1.UserService/ListUsers")
    except grpc.RpcError as refused:
        print("ListUsers refuses a member, as it should:", refused.code().name)


def main():
    hub = Hub(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:3345")
    list_everything(hub)
    do_the_main_job(hub)


if __name__ == "__main__":
    main()
